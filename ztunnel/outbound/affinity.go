package outbound

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// mostKept bounds what a pod remembers; beyond it what has expired goes, and then
// anything.
const mostKept = 1000

// affinities are the endpoints that the pod keeps, of services that ask for it.
type affinities struct {
	mu   sync.Mutex
	kept map[mesh.ServiceKey]keptEndpoint
}

type keptEndpoint struct {
	uid   string
	until time.Time
}

// of is the UID of the endpoint that is kept, or nothing.
func (a *affinities) of(k mesh.ServiceKey) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.kept[k]; time.Now().Before(e.until) {
		return e.uid
	}
	return ""
}

// keep remembers where a connection went. Each one renews it.
func (a *affinities) keep(d *route.OutboundDecision) {
	if d.Service == nil || d.Service.Affinity == 0 || d.Waypoint || d.Workload == nil {
		return
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == nil {
		a.kept = map[mesh.ServiceKey]keptEndpoint{}
	}
	for k, e := range a.kept {
		if len(a.kept) < mostKept {
			break
		}
		if now.After(e.until) {
			delete(a.kept, k)
		}
	}
	for k := range a.kept {
		if len(a.kept) < mostKept {
			break
		}
		delete(a.kept, k)
	}
	a.kept[d.Service.Key()] = keptEndpoint{d.Workload.UID, now.Add(d.Service.Affinity)}
}
