"""What has attention heads: our own transformer, any pretrained model, and how heads are removed from them."""
