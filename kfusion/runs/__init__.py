"""What `kfusion fit` and `kfusion search` leave in a folder."""
