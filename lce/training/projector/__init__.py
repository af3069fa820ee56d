"""Training the projector of a vision-language model whose image encoder and decoder stay as they are."""
