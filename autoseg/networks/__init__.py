"""torch modules, built from a NetworkSpec by a literal table."""
