"""What `import markovlm` offers, and what the command line calls: thin doors to the rooms below."""
