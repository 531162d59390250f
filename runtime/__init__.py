"""What runs on the device: frames, bundles, engines, sources, sinks and the pipeline."""
