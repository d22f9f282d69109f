package images

import "fmt"

// Image says what is in an image and how it starts.
type Image struct {
	// Name is the last part of the image's reference.
	Name string
	// Reference is the whole one, of an image that manifests of others name.
	// Empty means Name below Prefix.
	Reference string `json:",omitempty"`
	// Version is linked into the Go programs as main.version and told in a
	// label. In the table any value asks for it; Build puts the real one in.
	Version string
	// Go maps a path in the image to the Go package whose program it is.
	Go map[string]string
	// Shifted makes the Go programs read a clock that is wrong: see shift.go.
	Shifted bool `json:",omitempty"`
	// Bin maps a path in the image to a program of the directory of tools.
	Bin map[string]string
	// Debian is the packages that are unpacked, with what they depend on.
	Debian []string
	// Without names packages of that closure which are left out.
	Without []string
	// Files maps a path to its content.
	Files map[string]string
	// Dirs are directories that the program writes to.
	Dirs []Dir
	// Entrypoint and Env start the program. User is "uid" or "uid:gid"; empty means root.
	Entrypoint []string
	Env        []string
	User       string
}

// Dir is a directory with an owner.
type Dir struct {
	Path string
	Mode int64
	UID  int
}

// Prefix is where images are when nobody says otherwise: a registry host that
// no client asks, so a node either has the image or fails at once.
const Prefix = "localhost/ambit"

// Tag is the tag of every image built here.
const Tag = "dev"

// Ref is the reference of an image below a prefix.
func Ref(prefix, name string) string { return fmt.Sprintf("%s/%s:%s", prefix, name, Tag) }

// reference is what the image is called in its archive.
func (img Image) reference() string {
	if img.Reference != "" {
		return img.Reference
	}
	return Ref(Prefix, img.Name)
}

// goImage is the common case: one static program, alone.
func goImage(name, pkg, user string) Image {
	path := "/" + name
	return Image{Name: name, Go: map[string]string{path: pkg}, Entrypoint: []string{path}, User: user}
}

// nobody is the user of programs that need no rights; it has no entry anywhere.
const nobody = "65532:65532"

// Product lists the images of the mesh.
func Product() []Image {
	cni := Image{
		Name: "cni", Entrypoint: []string{"/ambit-cni-agent"},
		Go: map[string]string{"/ambit-cni-agent": "./cni/cmd/ambit-cni-agent"},
	}
	// The plugin is static and copied to the node by the agent.
	cni.Go["/opt/cni/bin/ambit-cni"] = "./cni/cmd/ambit-cni"
	list := []Image{
		goImage("istiod", "./istiod-lite/cmd/istiod", nobody),
		// Root in its container, with the capabilities its manifest leaves it.
		goImage("ztunnel", "./ztunnel/cmd/ztunnel", ""),
		goImage("waypoint", "./waypoint/cmd/waypoint", nobody),
		cni,
	}
	for i := range list {
		list[i].Version = Tag
	}
	return list
}

// System lists the images that every cluster of package cluster needs.
func System() []Image {
	coredns := Image{Name: "coredns", Bin: map[string]string{"/coredns": "coredns"}, Entrypoint: []string{"/coredns"}}
	return []Image{goImage("pause", "./e2e/images/cmd/pause", "65535:65535"), coredns}
}

// Test lists the images of programs that tests run as pods.
func Test() []Image {
	return []Image{goImage("echo", "./e2e/echo/cmd/echo", ""), advanced(), nginx(), redis(), postgres()}
}

// Advanced is the reference of the image that the manifests of the conformance
// suite name; ours stands in its place.
const Advanced = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1"

// advanced has the suite's client beside its server, and the certificate that
// the suite's manifests tell the server to use.
func advanced() Image {
	return Image{
		Name: "echo-advanced", Reference: Advanced,
		Go: map[string]string{
			"/usr/local/bin/server": "./e2e/advanced/cmd/server",
			"/usr/local/bin/client": "./e2e/advanced/cmd/client",
		},
		Files:      selfSigned("/cert.crt", "/cert.key"),
		Env:        []string{"PATH=/usr/local/bin"},
		Entrypoint: []string{"/usr/local/bin/server"},
	}
}

// Extra lists the images of single tests, which are only made by name.
func Extra() []Image {
	z := goImage(Shifted, "./ztunnel/cmd/ztunnel", "")
	z.Shifted = true
	return []Image{z}
}

// All lists every image but the extra ones.
func All() []Image { return append(append(System(), Product()...), Test()...) }

// base is what programs from Debian expect around them.
var base = []string{"dash", "coreutils", "libc-bin", "sed", "grep"}

func debian(name string, packages ...string) Image {
	return Image{
		Name: name, Debian: append(append([]string{}, base...), packages...),
		// Install-time machinery, which nothing runs: the packages are only unpacked.
		Without: []string{"debconf", "perl", "perl-base", "libperl5.36", "perl-modules-5.36", "adduser", "passwd", "dpkg", "tar", "ucf", "sensible-utils"},
		Dirs:    []Dir{{"/tmp", 0o1777, 0}, {"/run", 0o755, 0}, {"/var/log", 0o755, 0}, {"/root", 0o700, 0}},
		Env:     []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"},
		Files: map[string]string{
			"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/:/bin/false\npostgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
			"/etc/group":         "root:x:0:\nwww-data:x:33:\npostgres:x:999:\nnogroup:x:65534:\n",
			"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		},
	}
}

// nginx serves a small and a large file, and carries wrk to ask for them.
func nginx() Image {
	i := debian("nginx", "nginx-light", "wrk")
	i.Dirs = append(i.Dirs, Dir{"/var/lib/nginx", 0o755, 0}, Dir{"/var/log/nginx", 0o755, 0})
	i.Files["/etc/nginx/nginx.conf"] = nginxConf
	i.Files["/srv/index.html"] = "ambit\n"
	i.Entrypoint = []string{"/usr/sbin/nginx", "-g", "daemon off;"}
	return i
}

const nginxConf = `worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000;
  server {
    listen 8080;
    listen [::]:8080;
    root /srv;
    location = /health { return 200 "ok\n"; }
  }
}
`

// redis is the server by default; redis-benchmark and redis-cli are beside it.
func redis() Image {
	i := debian("redis", "redis-server", "redis-tools")
	i.Dirs = append(i.Dirs, Dir{"/data", 0o777, 0})
	i.Files["/etc/redis-e2e.conf"] = "bind * -::*\nprotected-mode no\nsave \"\"\nappendonly no\ndir /data\n"
	i.Entrypoint = []string{"/usr/bin/redis-server", "/etc/redis-e2e.conf"}
	return i
}

// postgres makes an empty database at start and serves it to everybody;
// pgbench and psql are beside it.
func postgres() Image {
	i := debian("postgres", "postgresql-15", "postgresql-client-15")
	// Only the just-in-time compiler needs LLVM, and it is off.
	i.Without = append(i.Without, "libllvm14", "libz3-4", "ssl-cert", "openssl", "postgresql-common", "postgresql-client-common")
	i.Dirs = append(i.Dirs, Dir{"/var/lib/postgresql", 0o700, 999}, Dir{"/var/run/postgresql", 0o777, 0}, Dir{"/run/postgresql", 0o777, 0})
	i.Env = []string{"PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "PGDATA=/var/lib/postgresql/data"}
	i.Files["/entrypoint.sh"] = postgresStart
	i.Entrypoint = []string{"/bin/sh", "/entrypoint.sh"}
	i.User = "999:999"
	return i
}

const postgresStart = `set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth=trust --no-sync --locale=C --encoding=UTF8 >/dev/null
  printf 'host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n' >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c 'listen_addresses=*' -c jit=off -c fsync=off -c max_connections=200 "$@"
`
