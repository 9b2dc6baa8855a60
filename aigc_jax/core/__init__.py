"""The foundations of all methods: interface, transforms, config keys, sharding."""
