"""The study `settings`: which interpolation, sigma, start, learning rate, number of elements and size to choose."""
