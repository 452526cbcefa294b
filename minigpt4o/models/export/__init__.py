"""Models of this project as folders that other programs open: tensors, tokenizer, processor, configuration."""
