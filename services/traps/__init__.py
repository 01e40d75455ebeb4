"""Servers that are wrong in one known way each, and right ones to compare with: tests for any HTTPS client."""
