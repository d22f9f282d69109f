package telemetry

import "slices"

// bounds are Istio's buckets, of milliseconds and of bytes alike.
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// histogram counts values by bucket; the last bucket has no bound.
type histogram struct {
	sum     float64
	buckets [len(bounds) + 1]uint64
}

func (h *histogram) add(v float64) {
	i, _ := slices.BinarySearch(bounds[:], v)
	h.buckets[i]++
	h.sum += v
}

// cumulated is the form that Prometheus wants: how many values are at most
// each bound, and how many there are.
func (h *histogram) cumulated() (map[float64]uint64, uint64) {
	out := make(map[float64]uint64, len(bounds))
	var n uint64
	for i, bound := range bounds {
		n += h.buckets[i]
		out[bound] = n
	}
	return out, n + h.buckets[len(bounds)]
}
