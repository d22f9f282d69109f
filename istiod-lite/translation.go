package istiodlite

import (
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/jwks"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// published is the newest state of the mesh, for debug pages. Immutable.
type published struct {
	generation uint64
	at         time.Time
	mesh       objects.MeshConfig
	model      mesh.Model
	conditions []translate.Condition
}

// translation owns the Set. It belongs to one goroutine.
type translation struct {
	p          *plane
	set        objects.Set
	translator *translate.Translator
	needed     []objects.Key  // Gateways that services left to the mesh
	plan       provision.Plan // the last
}

func newTranslation(p *plane) *translation {
	return &translation{p: p, set: objects.Set{Mesh: p.cfg.Mesh}, translator: translate.New()}
}

// step takes what changed from the queue all the way to the pusher. Where pods
// run is known to the certificate authority before their proxies hear of them.
func (t *translation) step() error {
	p, began := t.p, time.Now()
	changes, since := p.queue.Take()
	if len(changes) == 0 && p.model.Load() != nil {
		return nil
	}
	refs, err := changes.Apply(&t.set)
	if err != nil {
		p.log.Error("objects passed over", "reason", err)
	}
	p.pods.update(changes)
	p.issuers.Want(jwks.Wanted(&t.set))
	model, conditions := t.translator.Update(t.set, refs)
	now := &published{at: began, mesh: t.set.Mesh, model: model, conditions: conditions}
	now.generation = p.pusher.Publish(model, since)
	p.model.Store(now)
	p.ledger.Note(changes, refs, now.generation)
	needed := t.translator.AutoWaypoints()
	if now.generation == 1 || slices.ContainsFunc(refs, provision.Concerns) || !slices.Equal(needed, t.needed) {
		t.plan = provision.Make(p.cfg.Waypoint, &t.set, needed)
		p.platform.provide(t.plan)
	}
	t.needed = needed
	p.platform.tell(t.plan.Tell(conditions), t.translator.Details())
	p.metrics.translated(len(refs), len(model.Services), time.Since(began))
	p.log.Debug("published", "generation", now.generation, "changes", len(refs), "took", time.Since(began))
	return nil
}
