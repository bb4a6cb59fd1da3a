"""One file per verb: where disk meets computation. Each is also a Python function of the same name."""
