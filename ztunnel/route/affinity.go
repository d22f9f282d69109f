package route

import (
	"hash/fnv"
	"math"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

// faithful picks the endpoint that the client keeps, if it is one of the best;
// else the one that wins by a hash of the client's address and the endpoint: the
// same for as long as it is there, also for a proxy that remembers nothing.
func (o *outbound) faithful(s *mesh.Service, endpoints []view.Endpoint, port uint16, gateway bool, best int) candidate {
	kept, won, highest := o.kept(s.Key()), candidate{}, math.Inf(-1)
	for i := range endpoints {
		c, rank, ok := o.consider(s, &endpoints[i], port, gateway, &excuse{})
		if !ok || rank != best {
			continue
		}
		if c.workload.UID == kept {
			return c
		}
		if score := o.score(s, c.workload); score > highest {
			won, highest = c, score
		}
	}
	return won
}

// score is an endpoint's in the contest for this client: the highest wins. An
// endpoint of twice the capacity wins twice as often.
func (o *outbound) score(s *mesh.Service, w *mesh.Workload) float64 {
	h := fnv.New64a()
	if len(o.src.Addresses) > 0 {
		h.Write(o.src.Addresses[0].AsSlice())
	}
	h.Write([]byte(s.Hostname + "\x00" + w.UID))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9 // texts that differ little must not have hashes that do
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return math.Log((float64(x)+0.5)/math.MaxUint64) / float64(w.Capacity)
}
