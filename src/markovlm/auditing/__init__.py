"""Auditing chains of thought that somebody else wrote: sources, readings, numbers, page."""
