// Package jwks fetches the keys of token issuers, so that waypoints get them
// with their configuration and call nobody.
//
// It owns when keys are fetched, from where they may be, and that the last good
// ones stay while their issuer is out of order. It refuses to read tokens or the
// keys themselves, which waypoint/authn does. The root package of istiod-lite
// tells it what is wanted, and its KeySets go into the queue of objects like
// what comes from the cluster.
package jwks

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Config configures a Fetcher; the zero value of every field but Put is ready.
type Config struct {
	// Put takes a KeySet that is new, nil if one is not wanted any more.
	Put func(objects.Ref, any)
	// Refresh is the time between fetches; zero is 20 min, as upstream.
	Refresh time.Duration
	// Retry is the pause after the first failure; each further one doubles it up
	// to MaxRetry. Zeros are 1 s and 1 min.
	Retry, MaxRetry time.Duration
	// Blocked are addresses beside the control plane's own and those of links and
	// of clouds' metadata that nothing is fetched from. AllowLocal unblocks those.
	Blocked    []netip.Prefix
	AllowLocal bool
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// maxFetches bounds the fetches under way.
const maxFetches = 16

// defaultTimeout bounds a fetch of which no rule says another time, as upstream.
const defaultTimeout = 5 * time.Second

// Fetcher fetches what is wanted. Make one with New.
type Fetcher struct {
	cfg     Config
	client  *http.Client
	slots   chan struct{}
	changed chan struct{} // capacity 1

	putting sync.Mutex // held while something is put or ceases to be wanted

	mu     sync.Mutex
	wanted map[string]time.Duration // the timeout of each place
}

// New makes a Fetcher; nothing is fetched before Run.
func New(cfg Config) *Fetcher {
	def(&cfg.Refresh, 20*time.Minute)
	def(&cfg.Retry, time.Second)
	def(&cfg.MaxRetry, time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	f := &Fetcher{cfg: cfg, slots: make(chan struct{}, maxFetches), changed: make(chan struct{}, 1)}
	f.client = newClient(cfg)
	return f
}

func def(field *time.Duration, value time.Duration) {
	if *field <= 0 {
		*field = value
	}
}

// Wanted are the places where a set's authentications want keys from.
func Wanted(s *objects.Set) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, ra := range s.RequestAuthentications {
		for _, r := range ra.Spec.GetJwtRules() {
			if uri := objects.KeysAt(r); uri != "" && r.GetIssuer() != "" {
				out[uri] = max(out[uri], r.GetTimeout().AsDuration())
			}
		}
	}
	return out
}

// Want replaces what is fetched. It does not wait.
func (f *Fetcher) Want(places map[string]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if maps.Equal(f.wanted, places) {
		return
	}
	f.wanted = maps.Clone(places)
	select {
	case f.changed <- struct{}{}:
	default: // one is pending already
	}
}

// Run fetches until ctx ends and the last fetch has returned.
func (f *Fetcher) Run(ctx context.Context) error {
	following := map[string]context.CancelFunc{}
	var running sync.WaitGroup
	defer running.Wait()
	for {
		f.mu.Lock()
		wanted := maps.Clone(f.wanted)
		f.mu.Unlock()
		for place, stop := range following {
			if _, still := wanted[place]; !still {
				f.drop(place, stop)
				delete(following, place)
			}
		}
		for place, timeout := range wanted {
			if following[place] != nil {
				continue
			}
			if timeout <= 0 {
				timeout = defaultTimeout
			}
			each, stop := context.WithCancel(ctx)
			following[place] = stop
			running.Go(func() { f.follow(each, place, timeout) })
		}
		select {
		case <-f.changed:
		case <-ctx.Done():
			for _, stop := range following {
				stop()
			}
			return nil
		}
	}
}

// follow fetches from one place again and again, and keeps the last good keys.
func (f *Fetcher) follow(ctx context.Context, place string, timeout time.Duration) {
	ref := objects.Ref{Kind: objects.KindKeySet, Key: objects.Key{Name: place}}
	last := &objects.KeySet{}
	retry := f.cfg.Retry
	for {
		keys, err := f.fetch(ctx, place, timeout)
		next, pause := &objects.KeySet{ObjectMeta: metav1.ObjectMeta{Name: place}, Keys: keys}, f.cfg.Refresh
		if err != nil {
			next.Keys, next.Problem = last.Keys, "could not be fetched: "+err.Error()
			pause, retry = retry, min(2*retry, f.cfg.MaxRetry)
		} else {
			retry = f.cfg.Retry
		}
		if next.Keys != last.Keys || next.Problem != last.Problem {
			f.put(ctx, ref, next)
			last = next
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// put hands on what is still wanted.
func (f *Fetcher) put(ctx context.Context, ref objects.Ref, s *objects.KeySet) {
	f.putting.Lock()
	defer f.putting.Unlock()
	if ctx.Err() != nil {
		return
	}
	f.cfg.Logger.Info("keys of an issuer", "from", s.Name, "known", s.Keys != "", "problem", s.Problem)
	f.cfg.Put(ref, s)
}

// drop ends what follows a place; nothing of it comes after this.
func (f *Fetcher) drop(place string, stop context.CancelFunc) {
	f.putting.Lock()
	defer f.putting.Unlock()
	stop()
	f.cfg.Put(objects.Ref{Kind: objects.KindKeySet, Key: objects.Key{Name: place}}, nil)
}
