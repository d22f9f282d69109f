package chain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/cni/chain"
)

var entry = chain.Entry{Type: "ambit-cni", ExcludeNamespaces: []string{"kube-system"}}

const (
	ours   = `{"type":"ambit-cni","excludeNamespaces":["kube-system"]}`
	ptp    = `{"type":"ptp","ipMasq":false}`
	list   = `{"cniVersion":"1.0.0","name":"net","other":{"kept":true},"plugins":[` + ptp + `]}`
	listed = `{"cniVersion":"1.0.0","name":"net","other":{"kept":true},"plugins":[` + ptp + `,` + ours + `]}`
)

func values(t *testing.T, files map[string][]byte) map[string]any {
	t.Helper()
	out := map[string]any{}
	for name, b := range files {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = v
	}
	return out
}

func texts(m map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for name, s := range m {
		out[name] = []byte(s)
	}
	return out
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		what   string
		files  map[string]string
		write  map[string]string
		remove []string
	}{
		{"a list gets a copy with our plugin last",
			map[string]string{"10-x.conflist": list}, map[string]string{chain.OwnFile: listed}, nil},
		{"all is as it should be", map[string]string{"10-x.conflist": list, chain.OwnFile: listed}, nil, nil},
		{"the primary changed",
			map[string]string{"10-x.conflist": strings.Replace(list, "false", "true", 1), chain.OwnFile: listed},
			map[string]string{chain.OwnFile: strings.Replace(listed, "false", "true", 1)}, nil},
		{"our settings changed",
			map[string]string{"10-x.conflist": list, chain.OwnFile: strings.Replace(listed, "kube-system", "old", 1)},
			map[string]string{chain.OwnFile: listed}, nil},
		{"the first of several counts, and other files do not",
			map[string]string{"20-y.conflist": `{"name":"y","plugins":[{"type":"y"}]}`, "10-x.conflist": list, "00-readme.txt": "no"},
			map[string]string{chain.OwnFile: listed}, nil},
		{"a single plugin becomes a list",
			map[string]string{"10-x.conf": `{"cniVersion":"0.4.0","name":"net","type":"ptp","ipMasq":false}`},
			map[string]string{chain.OwnFile: `{"cniVersion":"0.4.0","name":"net","plugins":[` + ptp + `,` + ours + `]}`}, nil},
		{"an earlier installation in place is undone",
			map[string]string{"10-x.conflist": listed}, map[string]string{chain.OwnFile: listed, "10-x.conflist": list}, nil},
		{"a primary that sorts before ours is changed itself",
			map[string]string{"00-a.conflist": list, chain.OwnFile: listed}, map[string]string{"00-a.conflist": listed}, []string{chain.OwnFile}},
		{"in place and as it should be", map[string]string{"00-a.conflist": listed}, nil, nil},
		{"in place, from a single plugin", map[string]string{"00-a.conf": `{"name":"net","type":"ptp"}`},
			map[string]string{"00-a.conflist": `{"name":"net","plugins":[{"type":"ptp"},` + ours + `]}`}, []string{"00-a.conf"}},
	} {
		got, err := chain.Plan(texts(c.files), entry)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if diff := cmp.Diff(values(t, texts(c.write)), values(t, got.Write)); diff != "" {
			t.Errorf("%s: writes (-want +got):\n%s", c.what, diff)
		}
		if diff := cmp.Diff(c.remove, got.Remove); diff != "" {
			t.Errorf("%s: removes (-want +got):\n%s", c.what, diff)
		}
	}
}

func TestPlanLeavesAloneWhatItCannotRead(t *testing.T) {
	for _, c := range []struct {
		what  string
		files map[string]string
	}{
		{"nothing there", nil},
		{"only ours: the primary is being replaced", map[string]string{chain.OwnFile: listed}},
		{"half a file", map[string]string{"10-x.conflist": list[:40], "20-y.conflist": list, chain.OwnFile: listed}},
		{"an empty file", map[string]string{"10-x.conflist": ""}},
		{"no configuration", map[string]string{"10-x.json": `{"a":1}`}},
		{"no plugins", map[string]string{"10-x.conflist": `{"name":"x","plugins":[]}`}},
	} {
		if got, err := chain.Plan(texts(c.files), entry); err == nil || len(got.Write)+len(got.Remove) > 0 {
			t.Errorf("%s: change %v, error %v; want no change and an error", c.what, got, err)
		}
	}
}

func TestUnplan(t *testing.T) {
	got := chain.Unplan(texts(map[string]string{
		chain.OwnFile: listed, "05-a.conflist": listed, "10-x.conflist": list, "20.conf": `{"type":"x"}`, "30.conflist": "broken",
	}), entry.Type)
	if diff := cmp.Diff(values(t, texts(map[string]string{"05-a.conflist": list})), values(t, got.Write)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{chain.OwnFile}, got.Remove); diff != "" {
		t.Errorf("removes (-want +got):\n%s", diff)
	}
}

// node is a node's two directories and an installer that runs.
type node struct {
	bin, conf string
	i         *chain.Installer
	stop      func()
}

func start(t *testing.T, confs map[string]string) node {
	t.Helper()
	n := node{bin: t.TempDir(), conf: t.TempDir()}
	source := filepath.Join(t.TempDir(), "plugin")
	write(t, source, "binary")
	for name, s := range confs {
		write(t, filepath.Join(n.conf, name), s)
	}
	n.i = chain.New(chain.Config{Source: source, BinDir: n.bin, ConfDir: n.conf, Entry: entry, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.i.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

func write(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
}

// has waits until path holds the JSON want; "" is no file.
func has(t *testing.T, what, path, want string) {
	t.Helper()
	var got []byte
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		got, err = os.ReadFile(path)
		if want == "" && errors.Is(err, os.ErrNotExist) {
			return
		}
		if err == nil && want != "" && same(got, want) {
			return
		}
	}
	t.Fatalf("%s: %s holds %q, want %q", what, path, got, want)
}

func same(got []byte, want string) bool {
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
		return string(got) == want
	}
	return cmp.Equal(a, b)
}

func TestThePluginStaysInstalled(t *testing.T) {
	n := start(t, nil)
	own, primary, binary := filepath.Join(n.conf, chain.OwnFile), filepath.Join(n.conf, "10-x.conflist"), filepath.Join(n.bin, "ambit-cni")
	has(t, "binary first", binary, "binary")
	if n.i.Ready() {
		t.Error("ready without a configuration")
	}
	write(t, primary, list)
	has(t, "the primary appears", own, listed)
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	has(t, "ours is deleted", own, listed)
	// The file is there a moment before it is said.
	said := func() bool { s := n.i.Status(); return s.Err == nil && s.Restored > 0 && !s.Last.IsZero() }
	for end := time.Now().Add(10 * time.Second); !said() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if !said() {
		t.Errorf("after it was put back: %+v", n.i.Status())
	}
	write(t, own, list)
	has(t, "ours is rewritten", own, listed)
	other := strings.Replace(list, "false", "true", 1)
	write(t, primary, other)
	has(t, "the primary is rewritten", own, strings.Replace(listed, "false", "true", 1))
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	has(t, "the binary is deleted", binary, "binary")
	if !n.i.Ready() {
		t.Error("not ready though installed")
	}
	if st, err := os.Stat(binary); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the binary cannot be run: %v %v", st, err)
	}
	n.stop()
	has(t, "an agent that ends leaves all in place", own, strings.Replace(listed, "false", "true", 1))
	if err := n.i.Uninstall(); err != nil {
		t.Fatal(err)
	}
	has(t, "uninstalled", own, "")
	has(t, "uninstalled", binary, "")
	has(t, "uninstalled", primary, other)
	if left := names(t, n.bin); len(left) != 0 {
		t.Errorf("left in the binary directory: %q", left)
	}
	if left := names(t, n.conf); !slices.Equal(left, []string{"10-x.conflist"}) {
		t.Errorf("left in the configuration directory: %q", left)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestTheFirstConfigurationIsAlwaysOurs is the race: another program rewrites
// its file, half and whole, while the runtime reads the first one there is.
func TestTheFirstConfigurationIsAlwaysOurs(t *testing.T) {
	n := start(t, map[string]string{"10-x.conflist": list})
	own, primary := filepath.Join(n.conf, chain.OwnFile), filepath.Join(n.conf, "10-x.conflist")
	has(t, "installed", own, listed)
	for i := range 300 {
		version := strings.Replace(list, `"ipMasq":false`, fmt.Sprintf(`"mtu":%d`, i), 1)
		switch i % 3 {
		case 0:
			write(t, primary, version[:len(version)/2])
		case 1:
			os.Remove(primary)
		}
		checkFirst(t, n.conf)
		write(t, primary, version)
		checkFirst(t, n.conf)
	}
	has(t, "the last version counts", own, strings.Replace(listed, `"ipMasq":false`, `"mtu":299`, 1))
}

// checkFirst reads as a runtime does.
func checkFirst(t *testing.T, dir string) {
	t.Helper()
	first := slices.DeleteFunc(names(t, dir), func(n string) bool { return filepath.Ext(n) == ".tmp" })[0]
	b, err := os.ReadFile(filepath.Join(dir, first))
	if err != nil {
		t.Fatalf("the first configuration: %v", err)
	}
	var conf struct{ Plugins []map[string]any }
	if err := json.Unmarshal(b, &conf); err != nil {
		t.Fatalf("the first configuration, %s: %v", first, err)
	}
	if last := conf.Plugins[len(conf.Plugins)-1]; last["type"] != "ambit-cni" {
		t.Fatalf("the last plugin of %s is %v", first, slices.Collect(maps.Values(last)))
	}
}
