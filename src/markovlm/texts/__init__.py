"""What texts show by themselves: repetition, what a CoT has to do with its question, how the notes of chains fare. Pure functions of texts."""
