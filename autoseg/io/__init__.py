"""The only room that opens scans, arrays and records on disk."""
