package kept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// logs collects what a Keeper says.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// memory is a directory in memory that does not exist yet.
func memory(t *testing.T) string {
	t.Helper()
	if !inMemory("/dev/shm") {
		t.Skip("/dev/shm is not in memory")
	}
	dir, err := os.MkdirTemp("/dev/shm", "kept")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "kept")
}

func config(dir string, l *logs) Config {
	return Config{Dir: dir, Cluster: "c1", TrustDomain: "cluster.local", Node: "n1", Logger: slog.New(slog.NewTextHandler(l, nil))}
}

// taker takes everything but what it is told to reject.
type taker map[string]bool

func (t taker) Receive(_ context.Context, u xds.Update) (out []xds.Rejection) {
	for _, r := range u.Upserts {
		if t[r.Name] {
			out = append(out, xds.Rejection{Name: r.Name, Reason: errors.New("no")})
		}
	}
	return out
}

func resources(version string, names ...string) (out []xds.Resource) {
	for _, n := range names {
		out = append(out, xds.Resource{Name: n, Version: version, Body: []byte("body " + version + " of " + n)})
	}
	return out
}

var nothing = Source{Connected: func() bool { return false }, Certificates: func() []*certs.Certificate { return nil }, Told: func() *certs.KeptTrust { return nil }}

// filled is a Keeper whose state is in its file.
func filled(t *testing.T, dir string, reject taker) *Keeper {
	t.Helper()
	k := Open(config(dir, &logs{}))
	r := k.Receiver(reject)
	r.Receive(t.Context(), xds.Update{Type: xds.TypeAuthorization, Generation: 6, Upserts: resources("1", "p", "q")})
	r.Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Generation: 7, Upserts: resources("1", "a", "b", "c")})
	r.Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Generation: 8, Upserts: resources("2", "b"), Removed: []string{"c"}})
	k.flush(nothing)
	return k
}

func TestWhatWasKeptIsReadAsItWas(t *testing.T) {
	dir := memory(t)
	filled(t, dir, nil)
	s := Open(config(dir, &logs{})).State()
	if s == nil {
		t.Fatal("nothing")
	}
	want := map[string]map[string]string{xds.TypeAuthorization: {"p": "1", "q": "1"}, xds.TypeAddress: {"a": "1", "b": "2"}}
	if d := cmp.Diff(want, s.Held()); d != "" {
		t.Errorf("held (-want +got):\n%s", d)
	}
	updates := s.Updates()
	if len(updates) != 2 || updates[0].Type != xds.TypeAuthorization || updates[1].Generation != 8 {
		t.Errorf("updates %+v: want policies first, and the generation", updates)
	}
	if d := cmp.Diff(append(resources("1", "a"), resources("2", "b")...), updates[1].Upserts); d != "" {
		t.Errorf("addresses (-want +got):\n%s", d)
	}
}

// TestOfARejectedResourceIsKeptWhatTheProxyGoesOnWith, and it is asked for
// again.
func TestOfARejectedResourceIsKeptWhatTheProxyGoesOnWith(t *testing.T) {
	dir := memory(t)
	k := filled(t, dir, nil)
	k.Receiver(taker{"q": true, "new": true}).Receive(t.Context(), xds.Update{Type: xds.TypeAuthorization, Upserts: resources("2", "q", "new")})
	k.Receiver(taker{"a": true, "d": true}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Upserts: resources("2", "a", "d")})
	k.flush(nothing)
	s := Open(config(dir, &logs{})).State()
	got := map[string]string{}
	for _, u := range s.Updates() {
		for _, r := range u.Upserts {
			got[r.Name] = r.Version + "|" + string(r.Body)
		}
	}
	want := map[string]string{
		"p": "1|body 1 of p", "q": "|body 2 of q", "new": "|body 2 of new", // a policy that is not understood closes
		"a": "|body 1 of a", "b": "2|body 2 of b", // a workload stays as it was; one that was never understood is not there
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAStateInPartIsNeverWritten(t *testing.T) {
	dir := memory(t)
	k := Open(config(dir, &logs{}))
	k.Receiver(taker{}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Upserts: resources("1", "a")})
	k.flush(nothing)
	if s := Open(config(dir, &logs{})).State(); s != nil {
		t.Errorf("workloads without their policies were kept: %+v", s)
	}
}

func TestWhatCannotBeTrustedIsRefused(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 1; return b }
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		mode   os.FileMode
		config func(c *Config)
		says   string
	}{
		{"a bit in its middle", flip(120), 0, nil, "checksum"},
		{"a bit in its checksum", flip(-1), 0, nil, "checksum"},
		{"its last byte is missing", func(b []byte) []byte { return b[:len(b)-1] }, 0, nil, "checksum"},
		{"only its beginning is there", func(b []byte) []byte { return b[:60] }, 0, nil, "checksum"},
		{"it is empty", func([]byte) []byte { return nil }, 0, nil, "form"},
		{"it is of another form", func(b []byte) []byte { return append([]byte("ambit-kept 2 state"), b[18:]...) }, 0, nil, "form"},
		{"others may write it", nil, 0o622, nil, "mode"},
		{"another cluster", nil, 0, func(c *Config) { c.Cluster = "c2" }, "cluster"},
		{"another trust domain", nil, 0, func(c *Config) { c.TrustDomain = "other" }, "trust domain"},
		{"another node", nil, 0, func(c *Config) { c.Node = "n2" }, "node"},
		{"too large", nil, 0, func(c *Config) { c.MaxBytes = -headroom }, "more than"},
		{"too old", nil, 0, func(c *Config) { c.MaxAge = time.Nanosecond }, "old"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, l := memory(t), &logs{}
			filled(t, dir, nil)
			path := filepath.Join(dir, stateFile)
			if tt.change != nil {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, tt.change(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.mode != 0 {
				os.Chmod(path, tt.mode)
			}
			c := config(dir, l)
			if tt.config != nil {
				tt.config(&c)
			}
			k := Open(c)
			if s := k.State(); s != nil {
				t.Errorf("it was used: %+v", s)
			}
			if !strings.Contains(l.String(), tt.says) || k.Status().State.Complaint == "" || k.files[stateFile].refused != 1 {
				t.Errorf("said %q, %+v; want a word of %q", l.String(), k.Status(), tt.says)
			}
		})
	}
}

func TestADirectoryThatOthersCouldWriteIsNotUsed(t *testing.T) {
	dir := memory(t)
	filled(t, dir, nil)
	os.Chmod(dir, 0o755)
	k := Open(config(dir, &logs{}))
	if k.State() != nil || k.Status().Off == "" {
		t.Errorf("used: %+v", k.Status())
	}
	k.Receiver(taker{}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress}) // and nothing goes wrong
	k.flush(nothing)
}

func TestFilesAreNobodyElses(t *testing.T) {
	dir := memory(t)
	filled(t, dir, nil).CertificatesChanged()
	for path, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, stateFile): 0o600} {
		if f, err := os.Stat(path); err != nil || f.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, f.Mode(), err, mode)
		}
	}
}

func TestTheLastConfirmationCounts(t *testing.T) {
	dir := memory(t)
	k := filled(t, dir, nil)
	written := k.Status().State.Written
	k.confirm(nothing) // it is not connected
	if s := Open(config(dir, &logs{})).State(); s.Confirmed.After(written) {
		t.Errorf("confirmed %s after it was written though nobody said so", s.Confirmed.Sub(written))
	}
	k.confirm(Source{Connected: func() bool { return true }})
	if s := Open(config(dir, &logs{})).State(); !s.Confirmed.After(written) {
		t.Error("the confirmation does not count")
	}
	k.Receiver(taker{}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Upserts: resources("3", "z")})
	k.flush(nothing)
	if s := Open(config(dir, &logs{})).State(); s.Confirmed.Before(k.Status().State.Written.Add(-time.Second)) {
		t.Error("a confirmation of what was before counts")
	}
}

// TestAStormIsWrittenAFewTimes: changes do not wait for the disk, and the disk
// does not follow each.
func TestAStormIsWrittenAFewTimes(t *testing.T) {
	dir := memory(t)
	synctest.Test(t, func(t *testing.T) {
		k := Open(config(dir, &logs{}))
		r := k.Receiver(taker{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx, nothing) }()
		r.Receive(ctx, xds.Update{Type: xds.TypeAuthorization})
		for i := range 1000 {
			r.Receive(ctx, xds.Update{Type: xds.TypeAddress, Upserts: resources(fmt.Sprint(i), "a")})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		if n := k.files[stateFile].writes; n < 4 || n > 8 {
			t.Errorf("%d writes of 1000 changes in ten seconds, want one in two seconds", n)
		}
		if s := Open(config(dir, &logs{})).State(); s == nil || s.Held()[xds.TypeAddress]["a"] != "999" {
			t.Errorf("the last change is not there: %+v", s)
		}
	})
}

func TestWhatIsTooLargeIsNotKept(t *testing.T) {
	dir, l := memory(t), &logs{}
	filled(t, dir, nil)
	c := config(dir, l)
	c.MaxBytes = 500
	k := Open(c)
	k.State()
	k.Receiver(taker{}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Upserts: []xds.Resource{{Name: "big", Body: make([]byte, 600)}}})
	k.flush(nothing)
	if _, err := os.Stat(filepath.Join(dir, stateFile)); !errors.Is(err, os.ErrNotExist) || !strings.Contains(l.String(), "too large") {
		t.Errorf("the old state is still there (%v), said %q", err, l.String())
	}
}

// TestAfterItsLeaveASuccessorWrites.
func TestAfterItsLeaveASuccessorWrites(t *testing.T) {
	dir := memory(t)
	old := filled(t, dir, nil)
	old.Leave(nothing)
	old.Receiver(taker{}).Receive(t.Context(), xds.Update{Type: xds.TypeAddress, Removed: []string{"a"}})
	old.flush(nothing)
	if s := Open(config(dir, &logs{})).State(); s.Held()[xds.TypeAddress]["a"] == "" {
		t.Error("one that leaves still writes")
	}
}

func TestCertificatesAreKeptInMemoryOnly(t *testing.T) {
	ca := certstest.New(t)
	m := ca.Credentials(t, certstest.ID("shop", "front"), certstest.ID("shop", "back"))
	root := ca.Root()
	told := &certs.KeptTrust{Epoch: 7, Roots: [][]byte{root.Raw}, Active: certs.Fingerprint(root)}
	from := Source{Connected: func() bool { return true }, Certificates: m.Keepable, Told: func() *certs.KeptTrust { return told }}
	dir := memory(t)
	k := Open(config(dir, &logs{}))
	k.CertificatesChanged()
	k.flush(from)
	got, trust := Open(config(dir, &logs{})).Certificates()
	if len(got) != 2 || got[0].ID != certstest.ID("shop", "back") || trust == nil || trust.Epoch != 7 || !trust.Roots[0].Equal(root) {
		t.Errorf("%d certificates, told %+v", len(got), trust)
	}
	told.Active = "another"
	k.CertificatesChanged()
	k.flush(from)
	k = Open(config(dir, &logs{}))
	if got, trust := k.Certificates(); got != nil || trust != nil || k.files[keysFile].refused != 1 {
		t.Errorf("roots that do not fit are used: %d certificates, %+v", len(got), trust)
	}
	disk := filepath.Join(t.TempDir(), "kept")
	if inMemory(filepath.Dir(disk)) {
		t.Skip("everything is in memory here")
	}
	l := &logs{}
	k = Open(config(disk, l))
	k.CertificatesChanged()
	k.flush(from)
	if _, err := os.Stat(filepath.Join(disk, keysFile)); !errors.Is(err, os.ErrNotExist) || !strings.Contains(l.String(), "memory") {
		t.Errorf("keys on a disk: %v, said %q", err, l.String())
	}
}

func FuzzReading(f *testing.F) {
	var b strings.Builder
	compose(&b, stateFile, header{}, func(w io.Writer) error {
		return encode(w, map[string]map[string]xds.Resource{xds.TypeAddress: {"a": {Name: "a", Version: "1", Body: []byte("x")}}})
	})
	f.Add([]byte(b.String()))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, body, _, err := parse(text, stateFile); err == nil {
			decode(body)
		}
		decode(text)
	})
}
