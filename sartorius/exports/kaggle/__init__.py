"""What a Kaggle notebook without a network needs to use trained models."""
