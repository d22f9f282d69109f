package istiodlite

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/ledger"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// standing is how far this replica and its proxies are. Generations are this
// replica's own count: another one's say nothing about them.
type standing struct {
	Generation uint64             `json:"generation"`
	At         time.Time          `json:"at"`
	Clients    []xds.ClientStatus `json:"clients"`
}

func (p *plane) standing() standing {
	m := p.model.Load()
	return standing{Generation: m.generation, At: m.at, Clients: p.pusher.Status()}
}

// verdict is what is known of one version of an object, and what the rules said
// of it.
type verdict struct {
	ledger.Answer
	Conditions []condition `json:"conditions,omitempty"`
}

type condition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	// Parent is whom it is about, empty for the object itself.
	Parent string `json:"parent,omitempty"`
}

// maxQuestions bounds the body of a question: some thousand objects.
const maxQuestions = 4 << 20

// held answers which generation first held each of the versions in the body.
func (p *plane) held(w http.ResponseWriter, r *http.Request) {
	var questions []ledger.Question
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestions)).Decode(&questions); err != nil {
		http.Error(w, "want a list of versions of objects: "+err.Error(), http.StatusBadRequest)
		return
	}
	p.page(func() any { return p.verdicts(questions) })(w, r)
}

// verdicts asks the ledger first: the conditions are then at least as new.
func (p *plane) verdicts(questions []ledger.Question) []verdict {
	out := make([]verdict, len(questions))
	for i, q := range questions {
		out[i].Answer = p.ledger.Ask(q)
	}
	about := map[objects.Ref][]condition{}
	for _, c := range p.model.Load().conditions {
		about[c.Object] = append(about[c.Object], condition{c.Type, c.Status, c.Reason, c.Message, parentName(c.Parent)})
	}
	for i, q := range questions {
		if out[i].State != ledger.Unread {
			out[i].Conditions = about[q.Ref()]
		}
	}
	return out
}

func parentName(p translate.Parent) string {
	if p == (translate.Parent{}) {
		return ""
	}
	name := objects.Key{Namespace: p.Namespace, Name: p.Name}.String()
	if p.Kind != "" {
		name = p.Kind + " " + name
	}
	if p.Port != 0 {
		name += ":" + strconv.Itoa(int(p.Port))
	}
	return name
}
