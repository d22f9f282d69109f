package istiodlite

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/ambit-mesh/ambit/internal/heard"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/ledger"
)

// heard answers whether every proxy that is connected to this replica has
// acknowledged the mesh with a version of an object.
func (p *plane) heard(w http.ResponseWriter, r *http.Request) {
	var v heard.Version
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, heard.MaxBody)).Decode(&v); err != nil {
		http.Error(w, "want a version of an object: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !p.ready.Load() {
		http.Error(w, "the mesh has not been read yet", http.StatusServiceUnavailable)
		return
	}
	a := p.ledger.Ask(ledger.Question{APIVersion: v.APIVersion, Kind: v.Kind, Namespace: v.Namespace, Name: v.Name, ResourceVersion: v.ResourceVersion})
	if a.State != ledger.Held || !acknowledged(p.pusher.Status(), a.Generation) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintln(w, "not yet")
		return
	}
	fmt.Fprintln(w, "yes")
}

// acknowledged reports whether every client has taken a generation whole.
func acknowledged(clients []xds.ClientStatus, generation uint64) bool {
	for _, c := range clients {
		for _, t := range c.Types {
			if t.Acked < generation {
				return false
			}
		}
	}
	return true
}
