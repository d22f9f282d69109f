package images

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func write(t *testing.T, path, content string, at time.Time) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

var sample = Image{
	Name: "sample", Entrypoint: []string{"/bin/prog", "arg"}, Env: []string{"A=b"}, User: "5:6",
	Files: map[string]string{"/etc/conf": "x"}, Dirs: []Dir{{"/tmp", 0o1777, 7}},
}

// packed writes the sample image with a program of the given content and age.
func packed(t *testing.T, program string, age time.Duration) (archive string) {
	t.Helper()
	dir := t.TempDir()
	prog := write(t, filepath.Join(dir, "prog"), program, time.Now().Add(-age))
	tr := newTree(sample.Name)
	if err := fill(t.Context(), Config{}, dir, sample, map[string]string{"/bin/prog": prog}, tr); err != nil {
		t.Fatal(err)
	}
	archive = filepath.Join(dir, "sample.tar")
	if err := writeArchive(tr, sample, archive, dir); err != nil {
		t.Fatal(err)
	}
	return archive
}

func TestTheSameInputsGiveTheSameBytes(t *testing.T) {
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := read(packed(t, "program", 0))
	if !bytes.Equal(first, read(packed(t, "program", 40*time.Hour))) {
		t.Error("an older file with the same content gives other bytes")
	}
	if bytes.Equal(first, read(packed(t, "changed", 0))) {
		t.Error("another program gives the same bytes")
	}
}

func TestAnArchiveIsAnImageThatStartsItsProgram(t *testing.T) {
	archive := packed(t, "program", 0)
	tag, err := name.NewTag("localhost/ambit/sample:dev")
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatalf("it is not there under its name: %v", err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got := []any{conf.OS, conf.Architecture, conf.Config.Entrypoint, conf.Config.Env, conf.Config.User}
	want := []any{"linux", architecture, sample.Entrypoint, sample.Env, sample.User}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(archive), "sample.layer.tar")); err == nil {
		t.Error("the layer was left beside the archive")
	}
}

func TestALayerHoldsFilesWithTheDirectoriesAboveThem(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	write(t, filepath.Join(root, "usr/bin/tool"), "tool", time.Now())
	write(t, filepath.Join(root, "usr/share/doc/tool/README"), "read me", time.Now())
	if err := os.Symlink("tool", filepath.Join(root, "usr/bin/alias")); err != nil {
		t.Fatal(err)
	}
	tr := newTree("x")
	if err := tr.addDir(root); err != nil {
		t.Fatal(err)
	}
	tr.addContent("/deep/er/file", "content")
	tr.addEmpty(Dir{"/var/data", 0o700, 999})
	var out bytes.Buffer
	if err := tr.write(&out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		line := h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Uid != 0 {
			line += " of its user"
		}
		if !h.ModTime.Equal(epoch) {
			line += " dated"
		}
		got = append(got, line)
	}
	want := []string{
		"deep/", "deep/er/", "deep/er/file", "usr/", "usr/bin/", "usr/bin/alias -> tool", "usr/bin/tool",
		"usr/share/", "var/", "var/data/ of its user",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatChangesAnImageChangesItsKey(t *testing.T) {
	dir := t.TempDir()
	prog := write(t, filepath.Join(dir, "p"), "program", time.Now())
	key := func(img Image, programs map[string]string) string {
		k, err := inputKey(img, programs)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	base := key(sample, map[string]string{"/p": prog})
	if base != key(sample, map[string]string{"/p": prog}) {
		t.Error("the key of the same image differs")
	}
	entry, files := sample, sample
	entry.Entrypoint = []string{"/other"}
	files.Files = map[string]string{"/etc/conf": "y"}
	write(t, prog+"2", "changed", time.Now())
	for what, other := range map[string]string{
		"entry point": key(entry, map[string]string{"/p": prog}),
		"files":       key(files, map[string]string{"/p": prog}),
		"program":     key(sample, map[string]string{"/p": prog + "2"}),
	} {
		if other == base {
			t.Errorf("a change of %s goes unnoticed", what)
		}
	}
}

func TestOnlyWhatChangedIsBuiltAgain(t *testing.T) {
	dir := t.TempDir()
	tool := write(t, filepath.Join(dir, "bin", "coredns"), "one", time.Now())
	cfg := Config{Checkout: dir, Out: filepath.Join(dir, "out"), Bin: filepath.Join(dir, "bin"), Names: []string{"coredns"}}
	build := func() (time.Time, string) {
		var said bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
		archives, err := Build(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(archives[0])
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime(), said.String()
	}
	first, _ := build()
	if second, said := build(); !second.Equal(first) || !strings.Contains(said, "up to date") {
		t.Errorf("it was built again without a change: %s", said)
	}
	write(t, tool, "two", time.Now())
	if third, said := build(); third.Equal(first) || strings.Contains(said, "up to date") {
		t.Errorf("a change went unnoticed: %s", said)
	}
	if err := os.Remove(Archive(cfg.Out, "coredns")); err != nil {
		t.Fatal(err)
	}
	build() // or Stat fails the test
}

func TestPushedImagesAreThoseOfTheArchives(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bin", "coredns"), strings.Repeat("program ", 10_000), time.Now())
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	cfg := Config{Checkout: dir, Out: filepath.Join(dir, "out"), Bin: filepath.Join(dir, "bin"), Names: []string{"coredns"}}
	if _, err := Build(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	prefix := strings.TrimPrefix(srv.URL, "http://") + "/team"
	if err := Push(t.Context(), cfg, prefix, "v1"); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(prefix + "/coredns:v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	conf, err := img.ConfigFile()
	if err != nil || conf.Config.Entrypoint[0] != "/coredns" {
		t.Errorf("it starts %v, %v", conf, err)
	}
	m, err := img.Manifest()
	if err != nil || m.Layers[0].Size > 10_000 {
		t.Errorf("the layer was not compressed: %+v, %v", m, err)
	}
}

func TestAnImageThatIsNotThereIsAnsweredWithThoseThatAre(t *testing.T) {
	_, err := Build(t.Context(), Config{Checkout: t.TempDir(), Names: []string{"nothing"}})
	if err == nil || !strings.Contains(err.Error(), "ztunnel") {
		t.Errorf("got %v", err)
	}
	_, err = Build(t.Context(), Config{Checkout: t.TempDir(), Names: []string{"coredns"}})
	if err == nil || !strings.Contains(err.Error(), "cluster build") {
		t.Errorf("a missing tool: %v", err)
	}
}

func TestTheTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, img := range All() {
		if seen[img.Name] {
			t.Errorf("there are two images %s", img.Name)
		}
		seen[img.Name] = true
		if len(img.Entrypoint) == 0 {
			t.Errorf("%s starts nothing", img.Name)
		}
		if _, err := name.NewTag(img.reference(), name.StrictValidation); err != nil {
			t.Errorf("%s: %v", img.Name, err)
		}
		for path, pkg := range img.Go {
			if !strings.HasPrefix(path, "/") || !strings.HasPrefix(pkg, "./") {
				t.Errorf("%s: %s from %s", img.Name, path, pkg)
			}
		}
	}
}

func TestAnImageCanHaveTheReferenceThatOthersUse(t *testing.T) {
	dir := t.TempDir()
	img := Image{Name: "sample", Reference: "registry.example/team/sample:v1", Entrypoint: []string{"/x"}}
	archive := filepath.Join(dir, "sample.tar")
	if err := writeArchive(newTree(img.Name), img, archive, dir); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(img.Reference)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tarball.ImageFromPath(archive, &tag); err != nil {
		t.Errorf("it is not there under its reference: %v", err)
	}
}

func TestTheCertificateIsAlwaysTheSameAndBelongsToItsKey(t *testing.T) {
	files := selfSigned("c", "k")
	if diff := cmp.Diff(files, selfSigned("c", "k")); diff != "" {
		t.Errorf("the second one differs: %s", diff)
	}
	if _, err := tls.X509KeyPair([]byte(files["c"]), []byte(files["k"])); err != nil {
		t.Error(err)
	}
}

func TestPlannedPackagesAreReadOutOfApt(t *testing.T) {
	plan := "Reading package lists...\nInst gcc-12-base (12.2.0-14 Debian:12 [amd64])\n" +
		"Inst libc6:amd64 (2.36-9 Debian:12 [amd64])\nConf libc6 (2.36-9 Debian:12 [amd64])\nInst redis-server (5:7.0.15-1 Debian [amd64])\n"
	want := []string{"gcc-12-base_12.2.0-14", "libc6_2.36-9", "redis-server_5:7.0.15-1"}
	if diff := cmp.Diff(want, planned(plan)); diff != "" {
		t.Error(diff)
	}
}

func TestDownloadedPackagesAreFoundByNameAndVersion(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"libc6_2.36-9_amd64.deb", "libc6_2.36-10_amd64.deb", "redis-server_5%3a7.0_amd64.deb"} {
		write(t, filepath.Join(dir, "archives", f), "", time.Now())
	}
	a := &apt{dir: dir}
	got, err := a.files([]string{"libc6_2.36-9", "redis-server_5:7.0"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if diff := cmp.Diff([]string{"libc6_2.36-9_amd64.deb", "redis-server_5%3a7.0_amd64.deb"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := a.files([]string{"libc6_9"}); err == nil {
		t.Error("a package that was not downloaded was found")
	}
}

// TestAShiftedProgramReadsAnotherClock builds a program as the image's, and asks
// it for the time.
func TestAShiftedProgramReadsAnotherClock(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module clock\n\ngo 1.26\n", time.Now())
	write(t, filepath.Join(dir, "main.go"), `package main

import (
	"fmt"
	"time"
)

func main() {
	began := time.Now()
	fmt.Println(began.Unix(), time.Since(began) < time.Minute, time.Until(began.Add(time.Hour)) > 59*time.Minute)
}
`, time.Now())
	programs, err := buildPrograms(t.Context(), Config{Checkout: dir}, t.TempDir(), Image{Name: "clock", Shifted: true, Go: map[string]string{"/clock": "."}})
	if err != nil {
		t.Fatal(err)
	}
	for node, off := range map[string]int64{"a": -600, "ab": 7200, "b": 0, "": 0} {
		cmd := exec.Command(programs["/clock"])
		cmd.Env = []string{"NODE_NAME=" + node, ShiftEnv + "=a=-600,ab=7200"}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var at int64
		var since, until bool
		if _, err := fmt.Sscan(string(out), &at, &since, &until); err != nil {
			t.Fatal(err)
		}
		if got := at - time.Now().Unix() - off; got < -60 || got > 60 || !since || !until {
			t.Errorf("on node %q the clock is %d s from where it is to be, timers are right: %v, %v", node, got, since, until)
		}
	}
}
