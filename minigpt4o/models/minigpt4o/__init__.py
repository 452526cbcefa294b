"""The self-contained text, picture and sound model of this project, at home in transformers."""
