package soak

import (
	"math"
	"slices"
)

// Slope is how fast something grows, and between what it lies with a confidence
// of 95 per cent.
type Slope struct{ Value, Low, High float64 }

// Floor keeps the smallest of each of n blocks of samples in order: what is in
// use at a moment only adds to what stays, and only the latter is a leak.
func Floor(x, y []float64, n int) (fx, fy []float64) {
	n = min(n, len(x))
	for i := range n {
		from, to := i*len(x)/n, (i+1)*len(x)/n
		best := from
		for j := from; j < to; j++ {
			if y[j] < y[best] {
				best = j
			}
		}
		fx, fy = append(fx, x[best]), append(fy, y[best])
	}
	return fx, fy
}

// Fit is the median of the slopes between all pairs of points (Theil and Sen),
// which a few wild ones do not bend, with Sen's interval.
func Fit(x, y []float64) Slope {
	var slopes []float64
	for i := range x {
		for j := range i {
			if x[i] != x[j] {
				slopes = append(slopes, (y[i]-y[j])/(x[i]-x[j]))
			}
		}
	}
	if len(slopes) == 0 {
		return Slope{Low: math.Inf(-1), High: math.Inf(1)}
	}
	slices.Sort(slopes)
	n, pairs := float64(len(x)), float64(len(slopes))
	const z = 1.96 // of a normal distribution, for 95 per cent
	half := z * math.Sqrt(n*(n-1)*(2*n+5)/18) / 2
	at := func(rank float64) float64 {
		return slopes[min(max(int(math.Round(rank)), 0), len(slopes)-1)]
	}
	return Slope{Value: at((pairs - 1) / 2), Low: at((pairs-1)/2 - half), High: at((pairs-1)/2 + half)}
}
