package cluster

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

func TestStateIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	s := &state{
		Name: "x", Index: 3, Family: Dual, Bin: "/b", Images: "/i", Loaded: []string{"/i/echo.tar"},
		Procs: map[string]machine.Process{"control": {PID: 7, Start: 9}},
	}
	for range 2 {
		if _, err := s.addNode(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Error(diff)
	}
}

func TestANumberOfANodeIsNotUsedAgain(t *testing.T) {
	s := &state{Name: "x", Nodes: []node{{"node1", 1}, {"node3", 3}}}
	n, err := s.addNode()
	if err != nil || n != (node{"node4", 4}) {
		t.Errorf("got %v, %v", n, err)
	}
	s.Nodes[2].Number = maxNodes
	if n, err := s.addNode(); err == nil {
		t.Errorf("a full cluster got node %v", n)
	}
}

func TestAnUnknownNodeIsAnsweredWithTheKnownOnes(t *testing.T) {
	s := &state{Name: "x", Nodes: []node{{"node1", 1}}}
	err := s.checkMachine("node9")
	if err == nil || !strings.Contains(err.Error(), "node1") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"node1", "control"} {
		if err := s.checkMachine(name); err != nil {
			t.Error(err)
		}
	}
}

func TestTheLockIsHeldByOneAndSurvivesRemoval(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	release, err := lock(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		release, err := lock(dir, true)
		if err == nil {
			defer release()
			_, err = os.Stat(dir)
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a second holder got in: %v", err)
	default:
	}
	// The holder removes the directory, as Down does, then lets go.
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-got; err != nil {
		t.Errorf("the next holder has no directory: %v", err)
	}
}

func TestOnlyDirectoriesWithANameOfAClusterAreClusters(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"b", "a", "lost+found", ".x"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := stateNames(root)
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := stateNames(filepath.Join(root, "missing")); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
}

func TestNamesOfImagesAreReadOutOfAnArchive(t *testing.T) {
	for name, c := range map[string]struct {
		member, content, want, err string
	}{
		"a docker-archive":         {"manifest.json", `[{"RepoTags":["localhost/a:dev","localhost/b:dev"]}]`, "localhost/a:dev localhost/b:dev", ""},
		"an archive without names": {"manifest.json", `[{"RepoTags":null}]`, "", "names no image"},
		"some other tar":           {"hello", "x", "", "no docker-archive"},
		"a broken manifest":        {"manifest.json", `{`, "", "manifest.json"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.tar")
			writeTar(t, file, c.member, c.content)
			got, err := archiveRefs(file)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func writeTar(t *testing.T, file, member, content string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, m := range []struct{ name, content string }{{"first", "some other file"}, {member, content}} {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
