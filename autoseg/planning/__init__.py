"""Fingerprint → Plan: pure decisions, each with its reason."""
