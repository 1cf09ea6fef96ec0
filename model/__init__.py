"""Text, lexical grams, encoder, releases. torch lives here and nowhere else."""
