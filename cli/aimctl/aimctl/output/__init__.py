"""What reaches the terminal, as text or as a document."""
