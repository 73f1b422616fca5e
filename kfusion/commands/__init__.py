"""The commands of `kfusion` that stand in modules of their own: arguments in, data out."""
