"""Line 4 in parts: prompts with known answers, every head's score on them, the tasks with heads removed."""
