package ambit

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/ambit-mesh/ambit"

// pkg is one package of the house as `go list` and the parser see it.
type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string

	files []*ast.File
	fset  *token.FileSet
}

// path is the package's place below the module, "." for the root.
func (p *pkg) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func (p *pkg) isMain() bool { return p.Name == "main" }

// house lists every package of the module once.
var house = sync.OnceValues(func() ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,Imports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + ": " + stderr.String())
	}
	var all []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{fset: token.NewFileSet()}
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for _, f := range p.GoFiles {
			parsed, err := parser.ParseFile(p.fset, filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			p.files = append(p.files, parsed)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
})

func packages(t *testing.T) []*pkg {
	t.Helper()
	all, err := house()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d packages: the house is not being looked at", len(all))
	}
	return all
}

// under reports whether path is one of the trees or below one.
func under(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// inHouse turns an import path into a place below the module.
func inHouse(imp string) (string, bool) {
	return strings.CutPrefix(imp, module+"/")
}

// rooms are the parts that never import one another. What two of them need
// lives in internal.
var rooms = []string{"ztunnel", "waypoint", "istiod-lite", "cni", "ambit", "manifests"}

// edges between rooms that are allowed, with the reason.
var edges = map[[2]string]string{
	{"ambit", "manifests"}: "ambit install applies what manifests renders; both are tools for an administrator, neither runs in the mesh",
}

func TestARoomNeverImportsAnotherRoom(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.SplitN(p.path(), "/", 2)[0]
		if !slices.Contains(rooms, from) {
			continue
		}
		for _, imp := range p.Imports {
			to, ok := inHouse(imp)
			if !ok {
				continue
			}
			room := strings.SplitN(to, "/", 2)[0]
			if room == from || !slices.Contains(rooms, room) || edges[[2]string{from, room}] != "" {
				continue
			}
			t.Errorf("%s imports %s: what two rooms share lives in internal", p.path(), to)
		}
	}
}

// importRule forbids direct imports (or, with deep, any dependency).
type importRule struct {
	why    string
	from   []string // the packages it binds; empty binds all
	except []string // the packages it does not bind
	never  []string // import paths and the trees below them
	deep   bool
}

// generated are the packages that protoc wrote and what serves only them.
var generated = []string{
	module + "/internal/wire/workloadpb", module + "/internal/wire/securitypb", module + "/internal/wire/zdspb", module + "/internal/wire/settingspb",
	module + "/internal/wire/trustpb",
	"github.com/envoyproxy/go-control-plane", "istio.io/api/security/v1alpha1",
	"google.golang.org/protobuf/proto", "google.golang.org/protobuf/types",
}

// clientGo are the packages that talk to an API server.
var clientGo = []string{"k8s.io/client-go", "istio.io/client-go/pkg/clientset", "istio.io/client-go/pkg/informers"}

var importRules = []importRule{
	{
		why:   "what rooms share knows no room, and nobody depends on the tests",
		from:  []string{"internal"},
		never: places("ztunnel", "waypoint", "istiod-lite", "cni", "ambit", "manifests", "e2e", "bench"),
	},
	{
		why:   "the product never depends on its tests",
		from:  rooms,
		never: places("e2e", "bench"),
		deep:  true,
	},
	{
		why:   "a proxy speaks xDS, not Kubernetes: it must run under any control plane and stay small",
		from:  []string{"ztunnel", "waypoint"},
		never: []string{"k8s.io", "sigs.k8s.io/controller-runtime", "istio.io/client-go"},
		deep:  true,
	},
	{
		why:   "the plugin runs once per pod start, on every node, as root: it stays tiny and asks the agent for everything",
		from:  []string{"cni/plugin", "cni/cmd/ambit-cni"},
		never: []string{"k8s.io", "google.golang.org/grpc", "istio.io"},
		deep:  true,
	},
	{
		why:    "protobuf stops at the door; ext_authz is a door of its own, to providers",
		except: []string{"internal/wire", "waypoint/extauthz", "internal/xds", "internal/zds", "internal/certs", "istiod-lite/push", "istiod-lite/ca", "e2e", "bench"},
		never:  generated,
	},
	{
		why:    "informers have one user in the control plane and one in the node agent",
		except: []string{"istiod-lite/kube", "cni/agent", "e2e"},
		never:  []string{"k8s.io/client-go/informers", "k8s.io/client-go/tools/cache", "istio.io/client-go/pkg/informers"},
	},
	{
		why:    "only effects talk to the API server; rules get values",
		except: []string{"istiod-lite/kube", "istiod-lite/ca", "istiod-lite/cmd", "cni/agent", "cni/cmd", "ambit", "e2e", "bench"},
		never:  clientGo,
	},
	{
		why:    "only commands read flags",
		except: []string{"ambit", "ztunnel/cmd", "waypoint/cmd", "istiod-lite/cmd", "cni/cmd", "manifests/cmd", "bench/cmd", "e2e"},
		never:  []string{"flag", "github.com/spf13"},
	},
	{
		why:   "tests speak with the standard library and go-cmp",
		never: []string{"github.com/stretchr/testify", "github.com/onsi/gomega"},
	},
}

// places makes import paths of places in the house.
func places(names ...string) []string {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = module + "/" + name
	}
	return paths
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, r := range importRules {
		bound := 0
		for _, p := range packages(t) {
			if len(r.from) > 0 && !under(p.path(), r.from...) || under(p.path(), r.except...) {
				continue
			}
			bound++
			imports := p.Imports
			if r.deep {
				imports = p.Deps
			}
			for _, imp := range imports {
				if under(imp, r.never...) {
					t.Errorf("%s reaches %s: %s", p.path(), imp, r.why)
				}
			}
		}
		if bound == 0 {
			t.Errorf("rule %q binds no package: the table is out of date", r.why)
		}
	}
}

// pure are the packages of rules: values in, values out.
var pure = []string{
	"internal/mesh", "internal/spiffe", "internal/policy", "internal/urlpath",
	"istiod-lite/rotation", "istiod-lite/translate", "istiod-lite/snapshot", "istiod-lite/provision",
	"ztunnel/route", "ztunnel/names", "cni/enrol", "waypoint/match", "waypoint/circuit",
}

// impure is what a rule may not even import.
var impure = []string{"context", "net", "os", "log", "log/slog", "crypto/tls", "net/http", "os/exec", "io/fs", "math/rand", "math/rand/v2", "syscall"}

func TestRulesArePure(t *testing.T) {
	for _, want := range pure {
		if !slices.ContainsFunc(packages(t), func(p *pkg) bool { return p.path() == want }) {
			t.Errorf("the pure package %s is gone: the table is out of date", want)
		}
	}
	for _, p := range packages(t) {
		if !slices.Contains(pure, p.path()) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(impure, imp) {
				t.Errorf("%s imports %s: a rule has no context, clock, logger or socket", p.path(), imp)
			}
		}
		p.each(func(n ast.Node, at string) {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a rule starts no goroutine", at)
			}
			if isCall(n, "time", "Now") {
				t.Errorf("%s: a rule has no clock; pass the time in", at)
			}
		})
	}
}

func TestOnlyCommandsReadTheEnvironment(t *testing.T) {
	for _, p := range packages(t) {
		if p.isMain() || under(p.path(), "e2e", "ambit", "bench") {
			continue
		}
		p.each(func(n ast.Node, at string) {
			if isCall(n, "os", "Getenv") || isCall(n, "os", "LookupEnv") || isCall(n, "os", "Environ") {
				t.Errorf("%s: only cmd reads the environment; take it in Config", at)
			}
		})
	}
}

func TestNoPackageHasAnInit(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasSuffix(p.Name, "pb") {
			continue // protoc's own
		}
		p.each(func(n ast.Node, at string) {
			if f, ok := n.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: wiring is readable top to bottom; no init", at)
			}
		})
	}
}

func TestEveryPackageSaysOnceWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasSuffix(p.Name, "pb") {
			continue // written by protoc, described by its .proto
		}
		docs := 0
		for _, f := range p.files {
			if f.Doc == nil {
				continue
			}
			docs++
			if text := f.Doc.Text(); !p.isMain() && !strings.HasPrefix(text, "Package "+p.Name+" ") {
				t.Errorf("%s: the package comment starts %q, want %q", p.path(), firstWords(text), "Package "+p.Name+" …")
			}
		}
		if docs != 1 {
			t.Errorf("%s has %d package comments, want 1", p.path(), docs)
		}
	}
}

func TestPackageNamesAreOfTheDomainAndUnique(t *testing.T) {
	forbidden := []string{"util", "utils", "common", "types", "manager", "impl", "helper", "helpers", "misc", "lib", "base", "core", "shared", "pkg"}
	seen := map[string]string{}
	for _, p := range packages(t) {
		if p.isMain() {
			continue
		}
		if slices.Contains(forbidden, p.Name) {
			t.Errorf("%s: %q says nothing about the domain", p.path(), p.Name)
		}
		if other, ok := seen[p.Name]; ok {
			t.Errorf("%s and %s have one name; a package name appears once in the module", other, p.path())
		}
		seen[p.Name] = p.path()
	}
}

func TestTheReadmeMapsEveryPackage(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages(t) {
		if p.path() != "" && !strings.Contains(string(readme), "`"+p.path()+"`") {
			t.Errorf("README.md does not say what `%s` is", p.path())
		}
	}
}

// each visits every node of the package's files with its position.
func (p *pkg) each(visit func(n ast.Node, at string)) {
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if n != nil {
				pos := p.fset.Position(n.Pos())
				visit(n, filepath.Join(p.path(), filepath.Base(pos.Filename))+":"+strconv.Itoa(pos.Line))
			}
			return true
		})
	}
}

// isCall reports whether n calls pkg.name.
func isCall(n ast.Node, pkg, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg && sel.Sel.Name == name
}

func firstWords(s string) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(4, len(words))], " ")
}
