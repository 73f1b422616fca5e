"""Models as SavedModels and other formats, smallest for inference, checked in other processes."""
