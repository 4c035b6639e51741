"""Register recipes for Detectron2's detectors, and define the equivalents that they name."""
