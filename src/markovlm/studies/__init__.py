"""What studies of CoTs found: one record a kind (`records`), which writes and reads its file (`files`), and its tables (`tables`)."""
