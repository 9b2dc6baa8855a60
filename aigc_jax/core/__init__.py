"""What every method needs: its protocol, transforms, keys, configs, sharding."""
