"""The Hugging Face Hub: push, pull, and whether a card's score holds."""
