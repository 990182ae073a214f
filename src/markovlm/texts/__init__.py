"""What texts show by themselves: repetition, how a CoT relates to its question, how the notes of chains develop. Pure functions."""
