package rotation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The world of the random test: a board that all read and one writes, replicas
// that lag behind it, and proxies that are told by one replica, ask any for
// certificates, and are now and then away.

const lifetime = 24 * time.Hour

type leaf struct {
	root  Root
	roots []Root // that came with it
	own   bool   // they count: nobody told anything since it came
	until time.Time
}

type proxyModel struct {
	id       string
	upstream bool // never tells and is never told
	away     bool // reaches no replica; its peers it does
	replica  int
	epoch    uint64
	trusts   []Root
	active   Root
	leaves   []leaf
	file     []Root
	told     bool
}

type replicaModel struct {
	name  string
	state State
	words map[string]Word
}

type world struct {
	r        *rand.Rand
	now      time.Time
	board    State
	version  int // of board
	target   Target
	records  map[string]Record
	replicas []*replicaModel
	proxies  []*proxyModel
	lives    int
	roots    int
	log      []string

	// A leader that lags: what it has read.
	read        State
	readVersion int
	readRecords []Record
	readMembers []Member
}

func newWorld(seed uint64) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 1)), now: start, records: map[string]Record{}}
	w.target = w.newTarget()
	w.board = Begin(w.target, lifetime, w.now)
	for range 3 {
		w.replicas = append(w.replicas, &replicaModel{})
	}
	for i := range w.replicas {
		w.restart(i)
	}
	for i := range 5 {
		p := w.birth(nil)
		p.upstream = i == 0 && seed%2 == 0
	}
	w.readBoard()
	return w
}

func (w *world) newTarget() Target {
	w.roots++
	return authority(fmt.Sprint("root", w.roots))
}

func (w *world) restart(i int) {
	w.lives++
	*w.replicas[i] = replicaModel{name: fmt.Sprint("istiod-", w.lives), state: w.board, words: map[string]Word{}}
	for _, p := range w.proxies {
		if p.replica == i {
			p.told = false
		}
	}
}

// birth is a new proxy, on whose node another one may have kept what it had.
func (w *world) birth(before *proxyModel) *proxyModel {
	w.lives++
	p := &proxyModel{id: fmt.Sprint("proxy-", w.lives), replica: w.r.IntN(len(w.replicas)), file: w.board.Trusted}
	if before != nil {
		p.upstream = before.upstream
		if !p.upstream {
			p.trusts, p.leaves = before.trusts, slices.Clone(before.leaves)
		}
	}
	w.proxies = append(w.proxies, p)
	for len(p.leaves) < 2 {
		p.leaves = append(p.leaves, leaf{})
	}
	return p
}

// refresh lets a replica read the board, and tell some of those that it reaches.
func (w *world) refresh(i int) {
	r := w.replicas[i]
	if r.state.Epoch == w.board.Epoch {
		return
	}
	r.state, r.words = w.board, map[string]Word{}
	w.tell(i, 2)
}

// tell tells one in n of those whom a replica reaches.
func (w *world) tell(i, n int) {
	for _, p := range w.proxies {
		if p.replica == i && p.told && !p.away && !p.upstream && w.r.IntN(n) == 0 {
			p.take(w.replicas[i].state)
		}
	}
}

// rootOf is the root of who signs in a state.
func rootOf(s State) Root { return Root(strings.TrimPrefix(s.Signer, "signer of ")) }

// renew asks any replica for a certificate.
func (w *world) renew(p *proxyModel, i int) {
	from := w.replicas[w.r.IntN(len(w.replicas))].state
	l := leaf{root: rootOf(from), roots: from.Trusted, own: p.upstream || !p.told, until: w.now.Add(lifetime)}
	if !p.upstream && p.told && p.active != "" && l.root != p.active {
		return // it does not take that
	}
	p.leaves[i] = l
}

func (p *proxyModel) take(s State) {
	if p.told = true; s.Epoch >= p.epoch {
		p.epoch, p.trusts, p.active = s.Epoch, s.Trusted, s.Active
		for i := range p.leaves {
			p.leaves[i].own = false
		}
	}
}

func (p *proxyModel) standing(now time.Time) Standing {
	s := Standing{Epoch: p.epoch, Trusts: p.trusts, File: p.file, HasFile: true}
	for _, l := range p.leaves {
		if l.until.After(now) {
			s.Holds = append(s.Holds, l.root)
		}
	}
	return s
}

// accepts are whom a proxy trusts in the worst of its handshakes.
func (p *proxyModel) accepts(root Root, now time.Time) bool {
	for _, l := range p.leaves {
		if !l.until.After(now) {
			continue // without a certificate it meets nobody
		}
		trusts := p.trusts
		if l.own {
			trusts = l.roots
		}
		if !slices.Contains(trusts, root) {
			return false
		}
	}
	return true
}

func (w *world) members() (out []Member) {
	for _, r := range w.replicas {
		out = append(out, Member{ID: r.name, Name: r.name, Kind: KindReplica})
	}
	for _, p := range w.proxies {
		out = append(out, Member{ID: p.id, Name: p.id, Kind: KindZtunnel})
	}
	return out
}

func (w *world) readBoard() {
	w.read, w.readVersion, w.readMembers, w.readRecords = w.board, w.version, w.members(), nil
	for _, r := range w.records {
		w.readRecords = append(w.readRecords, Record{r.Replica, r.Epoch, cloned(r.Proxies)})
	}
}

func cloned(m map[string]Word) map[string]Word {
	out := map[string]Word{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// step lets one thing happen.
func (w *world) step() string {
	i := w.r.IntN(len(w.replicas))
	r, p := w.replicas[i], w.proxies[w.r.IntN(len(w.proxies))]
	reached := !p.away && !p.upstream
	switch w.r.IntN(22) {
	case 0, 1, 2:
		w.refresh(i)
		return r.name + " reads the board"
	case 3:
		if reached {
			p.take(w.replicas[p.replica].state)
		}
		return p.id + " is told"
	case 7, 8, 9, 10:
		if !p.away {
			n := w.r.IntN(len(p.leaves))
			due := p.upstream && p.leaves[n].until.Sub(w.now) < lifetime/2 || !p.upstream && (p.leaves[n].root != p.active || w.r.IntN(3) == 0)
			if due || p.leaves[n].root == "" {
				w.renew(p, n)
			}
		}
		return p.id + " asks for a certificate"
	case 11, 12, 13, 14:
		if to := w.replicas[p.replica]; reached && p.told {
			if old, heard := to.words[p.id]; !heard || old.Lacks != "" {
				to.words[p.id] = Word{Name: p.id, Lacks: to.state.Missing(p.standing(w.now))}
			}
		}
		return p.id + " tells"
	case 15, 16:
		w.records[r.name] = Record{r.name, r.state.Epoch, cloned(r.words)}
		return r.name + " writes its record"
	case 17:
		w.readBoard()
		return "the leader reads"
	case 18:
		waiting := w.read.Unconfirmed(w.readMembers, w.readRecords, w.now)
		if next, moved := w.read.Next(w.target, waiting, w.now); moved && w.readVersion == w.version {
			w.board, w.version = next, w.version+1
		}
		return "the leader steps to " + string(w.board.Phase)
	case 4, 5, 19:
		p.file = w.board.Trusted
		return p.id + "'s file is new"
	case 20:
		w.now = w.now.Add(time.Duration(w.r.IntN(60)) * time.Second)
		return "time passes"
	}
	if w.r.IntN(4) == 0 {
		return w.rare(i, p)
	}
	return "nothing"
}

// rare lets something happen that seldom does.
func (w *world) rare(i int, p *proxyModel) string {
	switch w.r.IntN(14) {
	case 0:
		w.restart(i)
		return "a replica restarts"
	case 1, 2, 7, 8:
		p.away, p.told = !p.away && w.r.IntN(2) == 0, false
		p.replica = i
		return p.id + " is away, or back"
	case 3:
		w.proxies = slices.DeleteFunc(w.proxies, func(o *proxyModel) bool { return o == p })
		return p.id + " is replaced by " + w.birth(p).id
	case 4:
		for i := range w.replicas {
			w.tell(i, 1) // who is connected has long heard
		}
		w.now = w.now.Add(13 * time.Hour) // an upstream proxy renews in time, if it can
		for _, p := range w.proxies {
			for n := range p.leaves {
				if !p.away && p.leaves[n].root != "" {
					w.renew(p, n)
				}
			}
		}
		return "half a day passes"
	case 5, 6:
		if w.board.Phase == Steady || w.r.IntN(8) == 0 {
			w.target = w.newTarget()
		}
		return "another root may be wanted"
	}
	return "nothing"
}

// check finds two who would not accept each other.
func (w *world) check() error {
	for _, p := range w.proxies {
		for _, l := range p.leaves {
			if !l.until.After(w.now) {
				continue
			}
			for _, q := range w.proxies {
				if !q.accepts(l.root, w.now) {
					return fmt.Errorf("%s presents %s to %s, which trusts %v and %v", p.id, l.root, q.id, q.trusts, q.leaves)
				}
			}
		}
	}
	return nil
}

func TestNobodyEverPresentsWhatAnotherDoesNotTrust(t *testing.T) {
	done := map[Phase]int{}
	for seed := range uint64(150) {
		w := newWorld(seed)
		for range 4000 {
			before := w.board.Phase
			w.log = append(w.log, w.step())
			if err := w.check(); err != nil {
				t.Fatalf("seed %d, after %d events: %v\n%s", seed, len(w.log), err, strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
			}
			if w.board.Phase != before {
				done[w.board.Phase]++
			}
		}
	}
	for _, phase := range []Phase{Spread, Switch, Reissue, Forget, Steady} {
		if done[phase] < 20 {
			t.Errorf("%s was reached %d times: the test hardly tests it (%v)", phase, done[phase], done)
		}
	}
	t.Log(done)
}
