"""From a scan to class probabilities and label maps."""
