"""Logs of the research code (scottviteri/MarkovianTraining): two readers, registered as a plug-in's are."""
