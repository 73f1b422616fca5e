"""An exported model behind TensorFlow Serving's REST interface; needs the extra `serve`."""
