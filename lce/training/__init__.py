"""Fine-tuning and pretraining with Lightning."""
