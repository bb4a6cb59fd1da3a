"""Pictures of what was trained and predicted."""
