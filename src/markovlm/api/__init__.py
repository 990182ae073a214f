"""What `import markovlm` offers, and what the command line calls: thin functions over the packages below."""
