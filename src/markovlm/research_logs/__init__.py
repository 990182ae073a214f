"""Logs of the research code (scottviteri/MarkovianTraining): two log parsers, registered as a plug-in's are."""
