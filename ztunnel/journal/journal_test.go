package journal

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func flow(id string) *telemetry.Flow {
	return &telemetry.Flow{
		ID: id, Direction: telemetry.Outbound, SourceAddr: netip.MustParseAddrPort("[fd00::1]:40000"), DestinationAddr: netip.MustParseAddrPort("[fd00::2]:15008"),
		HBONEAddr: "[fd00::2]:8080", Source: &mesh.Workload{Namespace: "shop", Name: "client"}, Destination: &mesh.Workload{Namespace: "shop", Name: "server"},
	}
}

// kill lets go of a journal as the end of its process does: only the lock.
func kill(j *Journal) { j.file.Close() }

func open(t *testing.T, dir string) (*Journal, []telemetry.Flow) {
	t.Helper()
	j, lost, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(j) })
	return j, lost
}

func texts(flows []telemetry.Flow) (out []string) {
	for _, f := range flows {
		out = append(out, format(&f))
	}
	return out
}

func ids(flows []telemetry.Flow) (out []string) {
	for _, f := range flows {
		out = append(out, f.ID)
	}
	return out
}

func TestWhatWasOpenAtAKillIsFoundOnce(t *testing.T) {
	dir := t.TempDir()
	j, lost := open(t, dir)
	if len(lost) > 0 {
		t.Errorf("found %v where nobody was", lost)
	}
	in := flow("in")
	in.Direction, in.Source = telemetry.Inbound, nil
	a, b, _ := j.Begin(flow("a"), time.Now()), j.Begin(flow("b"), time.Now()), j.Begin(in, time.Now())
	j.End(b)
	if again := j.Begin(flow("d"), time.Now()); again != b {
		t.Errorf("slot %d, want %d again: the file grows", again, b)
	}
	j.End(a)
	kill(j)
	_, lost = open(t, dir)
	if d := cmp.Diff([]string{format(flow("d")), format(in)}, texts(lost)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, lost = open(t, dir); len(lost) > 0 {
		t.Errorf("found again: %v", ids(lost))
	}
}

// TestALivingJournalIsNobodyElses: while one proxy replaces another both have
// theirs.
func TestALivingJournalIsNobodyElses(t *testing.T) {
	dir := t.TempDir()
	old, _ := open(t, dir)
	old.Begin(flow("a"), time.Now())
	young, lost := open(t, dir)
	if len(lost) > 0 {
		t.Errorf("took %v of one that lives", ids(lost))
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	kill(young)
	if _, lost = open(t, dir); len(lost) > 0 {
		t.Errorf("found %v of one that ended orderly", ids(lost))
	}
}

func TestNoJournalRemembersNothing(t *testing.T) {
	var j *Journal
	j.End(j.Begin(flow("a"), time.Now()))
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := Open(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("opened where nothing is")
	}
}

func TestALongFlowLosesItsNames(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	long := flow("a")
	long.Source = &mesh.Workload{Namespace: "shop", Name: strings.Repeat("x", 300)}
	j.Begin(long, time.Now())
	kill(j)
	_, lost := open(t, dir)
	if len(lost) != 1 || lost[0].ID != "a" || lost[0].HBONEAddr != long.HBONEAddr || lost[0].Destination != nil {
		t.Errorf("found %+v", lost)
	}
}

func TestJunkIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, prefix+"junk"), []byte(strings.Repeat("\xff", 3*slotSize+7)), 0o600)
	os.WriteFile(filepath.Join(dir, prefix+"short"), []byte{1}, 0o600)
	if _, lost := open(t, dir); len(lost) > 0 {
		t.Errorf("found %v", lost)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x05\x00i\x00a\x00b\x00c"))
	f.Fuzz(func(t *testing.T, text []byte) { read(text) })
}

// BenchmarkAConnection is what each pays.
func BenchmarkAConnection(b *testing.B) {
	j, _, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	f := flow("abcdefgh")
	b.ReportAllocs()
	for b.Loop() {
		j.End(j.Begin(f, time.Now()))
	}
}
