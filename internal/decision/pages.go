package decision

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Header is where an id travels: from the source's proxy to the destination's
// in a tunnel's request, and to a client in the answer that denies it.
const Header = "X-Ambit-Decision"

// mostTold bounds an answer; the newest are told.
const mostTold = 200

// Pages serves what r remembers, by pattern of http.ServeMux, as proxy's own
// words: GET /decisions/{id}, and GET /decisions?source=&destination= for those
// whose ends have such names; each may be given several times.
func Pages(r *Ring, proxy string) map[string]http.Handler {
	answer := func(w http.ResponseWriter, stories []Story) {
		for i := range stories {
			stories[i].Proxy = proxy
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(stories) // the client has gone
	}
	return map[string]http.Handler{
		"GET /decisions/{id}": http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			id := req.PathValue("id")
			stories := r.Find(id)
			if len(stories) == 0 {
				http.Error(w, fmt.Sprintf("decision %q is not remembered here", id), http.StatusNotFound)
				return
			}
			answer(w, stories)
		}),
		"GET /decisions": http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			q := req.URL.Query()
			stories := r.Select(q["source"], q["destination"])
			answer(w, stories[max(0, len(stories)-mostTold):])
		}),
	}
}
