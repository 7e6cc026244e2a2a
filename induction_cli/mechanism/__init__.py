"""Line 5 in parts: hard-coded heads in place of learned ones, and the paths that carry the loss."""
