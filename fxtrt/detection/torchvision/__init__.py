"""Register recipes for torchvision's detectors, and define the equivalents that they name."""
